SELECT order_id::text AS parent, id::text AS key, name, code, tax_rate, gross - tax AS net, tax, gross
  FROM order_discounts
 WHERE order_id = ANY (%(keys)s::bigint[])
 ORDER BY id
