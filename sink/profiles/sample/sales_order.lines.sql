SELECT order_id::text AS parent, id::text AS key, sku, name, quantity, unit_price, discount, tax_rate,
       gross - tax AS net, tax, gross
  FROM order_lines
 WHERE order_id = ANY (%(keys)s::bigint[])
 ORDER BY id
