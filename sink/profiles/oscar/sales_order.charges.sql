-- Shipping after its discounts, surcharges, and the cents that oscar loses: it rounds the total once and each line by
-- itself, so the lines may miss the total by half a cent each. More than that is not rounding, and holds the order.
WITH parts AS (
    SELECT order_id, line_price_excl_tax AS net, line_price_incl_tax AS gross
      FROM order_line
     WHERE order_id = ANY (%(keys)s::integer[])
    UNION ALL
    SELECT order_id, excl_tax, incl_tax
      FROM order_surcharge
     WHERE order_id = ANY (%(keys)s::integer[])
), rest AS (
    SELECT o.id,
           o.total_excl_tax - o.shipping_excl_tax - SUM(p.net)    AS net,
           o.total_incl_tax - o.shipping_incl_tax - SUM(p.gross)  AS gross,
           COUNT(*) * 0.005                                       AS cap
      FROM order_order o
      JOIN parts p ON p.order_id = o.id
     GROUP BY o.id, o.total_excl_tax, o.shipping_excl_tax, o.total_incl_tax, o.shipping_incl_tax
)
SELECT o.id::text                                                        AS parent,
       'shipping'                                                        AS key,
       'shipping'                                                        AS kind,
       substring(o.shipping_tax_code FROM '^\d+(?:\.\d+)?$')::numeric    AS tax_rate,
       o.shipping_excl_tax                                               AS net,
       o.shipping_incl_tax - o.shipping_excl_tax                         AS tax,
       o.shipping_incl_tax                                               AS gross
  FROM order_order o
 WHERE o.id = ANY (%(keys)s::integer[])
   AND o.shipping_incl_tax <> 0
UNION ALL
SELECT s.order_id::text,
       'surcharge:' || s.id,
       s.code,
       substring(s.tax_code FROM '^\d+(?:\.\d+)?$')::numeric,
       s.excl_tax,
       s.incl_tax - s.excl_tax,
       s.incl_tax
  FROM order_surcharge s
 WHERE s.order_id = ANY (%(keys)s::integer[])
UNION ALL
SELECT r.id::text, 'rounding', 'rounding', 0, r.net, r.gross - r.net, r.gross
  FROM rest r
 WHERE (r.net <> 0 OR r.gross <> 0)
   AND abs(r.net) <= r.cap
   AND abs(r.gross) <= r.cap
