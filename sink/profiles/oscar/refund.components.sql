-- oscar gives one sum, and sometimes how many of which lines it is for. The sum goes first to those lines, at the price
-- that was paid, then to shipping and surcharges. The rest is goodwill, spread over the order's tax rates. Cents go to the
-- largest remainder, and net follows the share of what was sold. oscar's own subtotals add up units that it rounded one by
-- one, so up to a cent per piece still belongs to the lines.
WITH event AS (
    SELECT e.id, e.order_id, e.amount, o.shipping_incl_tax AS shipping,
           o.shipping_incl_tax + COALESCE((SELECT SUM(s.incl_tax) FROM order_surcharge s WHERE s.order_id = o.id), 0)
               AS charges
      FROM order_paymentevent e
      JOIN order_order o ON o.id = e.order_id
     WHERE e.id = ANY (%(keys)s::integer[])
), piece AS (
    SELECT q.event_id, q.id, l.id AS line_id, q.quantity, l.tax_code, l.line_price_excl_tax AS net,
           l.line_price_incl_tax AS gross, l.line_price_incl_tax * q.quantity / l.quantity AS weight
      FROM order_paymenteventquantity q
      JOIN order_line l ON l.id = q.line_id
     WHERE q.event_id = ANY (%(keys)s::integer[])
), worth AS (
    SELECT e.*, round(COALESCE(SUM(p.weight), 0), 2) AS lines, COALESCE(SUM(p.quantity), 0) * 0.01 AS slack
      FROM event e
      LEFT JOIN piece p ON p.event_id = e.id
     GROUP BY e.id, e.order_id, e.amount, e.shipping, e.charges
), goods AS (
    SELECT w.*,
           CASE WHEN w.lines = 0 THEN 0
                WHEN w.amount - w.lines <= w.slack THEN w.amount
                WHEN abs(w.amount - w.lines - w.shipping) <= w.slack THEN w.amount - w.shipping
                WHEN abs(w.amount - w.lines - w.charges) <= w.slack THEN w.amount - w.charges
                ELSE w.lines
            END AS for_goods
      FROM worth w
), split AS (
    SELECT g.*,
           CASE WHEN g.charges = 0 THEN 'none'
                WHEN g.rest = g.charges OR (g.lines > 0 AND g.rest > g.charges) THEN 'all'
                WHEN g.rest = g.shipping OR (g.lines > 0 AND g.rest > g.shipping) THEN 'shipping'
                ELSE 'none'
            END AS charged
      FROM (SELECT *, amount - for_goods AS rest FROM goods) g
), charge AS (
    SELECT s.id AS event_id, 'charge:shipping' AS key, o.shipping_tax_code AS tax_code, o.shipping_excl_tax AS net,
           o.shipping_incl_tax AS gross
      FROM split s
      JOIN order_order o ON o.id = s.order_id
     WHERE s.charged IN ('all', 'shipping') AND o.shipping_incl_tax <> 0
    UNION ALL
    SELECT s.id, 'charge:surcharge:' || u.id, u.tax_code, u.excl_tax, u.incl_tax
      FROM split s
      JOIN order_surcharge u ON u.order_id = s.order_id
     WHERE s.charged = 'all'
), share AS (
    SELECT s.id AS event_id, 'line:' || p.id AS key, 'line' AS kind, p.line_id::text AS order_line, p.tax_code,
           p.net, p.gross, s.for_goods AS sum, p.weight, p.id AS rank
      FROM split s
      JOIN piece p ON p.event_id = s.id
     WHERE s.for_goods <> 0
    UNION ALL
    SELECT s.id, 'goodwill:' || l.tax_code, 'goodwill', NULL, l.tax_code, SUM(l.line_price_excl_tax),
           SUM(l.line_price_incl_tax),
           s.amount - s.for_goods - COALESCE((SELECT SUM(c.gross) FROM charge c WHERE c.event_id = s.id), 0),
           SUM(l.line_price_incl_tax), MIN(l.id)
      FROM split s
      JOIN order_line l ON l.order_id = s.order_id
     GROUP BY s.id, s.amount, s.for_goods, l.tax_code
), cents AS (
    SELECT h.*, h.sum * h.weight / NULLIF(SUM(h.weight) OVER whole, 0) AS exact,
           trunc(h.sum * h.weight / NULLIF(SUM(h.weight) OVER whole, 0), 2) AS base
      FROM share h
     WHERE h.sum <> 0
    WINDOW whole AS (PARTITION BY h.event_id, h.kind)
), paid AS (
    SELECT c.event_id, c.key, c.kind, c.order_line, c.tax_code, c.net, c.gross,
           c.base + CASE WHEN ROW_NUMBER() OVER (PARTITION BY c.event_id, c.kind ORDER BY c.exact - c.base DESC, c.rank)
                              <= (c.sum - SUM(c.base) OVER (PARTITION BY c.event_id, c.kind)) * 100
                         THEN 0.01 ELSE 0 END AS amount
      FROM cents c
    UNION ALL
    SELECT event_id, key, 'charge', NULL, tax_code, net, gross, gross
      FROM charge
)
SELECT p.event_id::text                                                    AS parent,
       p.key                                                               AS key,
       p.kind                                                              AS kind,
       p.order_line                                                        AS order_line,
       substring(p.tax_code FROM '^\d+(?:\.\d+)?$')::numeric               AS tax_rate,
       round(p.amount * p.net / NULLIF(p.gross, 0), 2)                     AS net,
       p.amount - round(p.amount * p.net / NULLIF(p.gross, 0), 2)          AS tax,
       p.amount                                                            AS gross
  FROM paid p
 WHERE p.amount <> 0
 ORDER BY p.event_id, p.key
