SELECT id::text AS parent, 'shipping' AS key, 'shipping' AS kind, shipping_tax_rate AS tax_rate,
       shipping_gross - shipping_tax AS net, shipping_tax AS tax, shipping_gross AS gross
  FROM orders
 WHERE id = ANY (%(keys)s::bigint[])
   AND shipping_gross <> 0
