SELECT id::text AS key, sku, 'list' AS price_list, 'EUR' AS currency, price AS amount, true AS tax_included, active AS ready
  FROM products
 WHERE id = ANY (%(keys)s::bigint[])
