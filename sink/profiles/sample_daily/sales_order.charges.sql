SELECT day_key AS parent, id || ':shipping' AS key, 'shipping' AS kind, shipping_tax_rate AS tax_rate,
       shipping_gross - shipping_tax AS net, shipping_tax AS tax, shipping_gross AS gross
  FROM placed
 WHERE counts
   AND shipping_gross <> 0
 ORDER BY placed_at, id
