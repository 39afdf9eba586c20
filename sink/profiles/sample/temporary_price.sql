-- When a price starts or ends, nothing is written to the log. Both go to the ERP as dates.
SELECT t.id::text AS key, p.sku, 'list' AS price_list, 'EUR' AS currency, t.price AS amount, true AS tax_included,
       t.valid_from, t.valid_until, t.minimum_quantity, true AS ready
  FROM product_prices t
  JOIN products p ON p.id = t.product_id
 WHERE t.id = ANY (%(keys)s::bigint[])
