-- The stock record's price, net in this shop. A record without a price is left out.
SELECT r.id::text              AS key,
       r.partner_sku           AS sku,
       'net'                   AS price_list,
       r.price_currency        AS currency,
       r.price                 AS amount,
       false                   AS tax_included,
       true                    AS ready
  FROM partner_stockrecord r
 WHERE r.id = ANY (%(keys)s::integer[])
   AND r.price IS NOT NULL
