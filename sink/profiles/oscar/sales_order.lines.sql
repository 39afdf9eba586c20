-- oscar spreads every discount, of offers and vouchers alike, over the lines: line_price_* is what is paid, and
-- order_orderdiscount only tells where it came from. This shop's tax codes are the rates in percent. Any other code
-- leaves tax_rate empty, which holds the order.
SELECT l.order_id::text                                                          AS parent,
       l.id::text                                                                AS key,
       l.partner_sku                                                             AS sku,
       l.title                                                                   AS name,
       l.quantity                                                                AS quantity,
       COALESCE(l.unit_price_incl_tax,
                l.line_price_before_discounts_incl_tax / NULLIF(l.quantity, 0))  AS unit_price,
       l.line_price_before_discounts_incl_tax - l.line_price_incl_tax            AS discount,
       substring(l.tax_code FROM '^\d+(?:\.\d+)?$')::numeric                     AS tax_rate,
       l.line_price_excl_tax                                                     AS net,
       l.line_price_incl_tax - l.line_price_excl_tax                             AS tax,
       l.line_price_incl_tax                                                     AS gross
  FROM order_line l
 WHERE l.order_id = ANY (%(keys)s::integer[])
 ORDER BY l.id
