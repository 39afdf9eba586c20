-- The tax of a refund is calculated from the gross amount that is refunded.
SELECT c.return_id::text AS parent, c.key, c.kind, c.order_line, c.tax_rate,
       c.gross - round(c.gross * c.tax_rate / (100 + c.tax_rate), 2) AS net,
       round(c.gross * c.tax_rate / (100 + c.tax_rate), 2) AS tax, c.gross
  FROM (SELECT r.return_id, r.id::text AS key, 'line' AS kind, r.order_line_id::text AS order_line, l.tax_rate,
               r.refund_amount AS gross
          FROM return_lines r
          JOIN order_lines l ON l.id = r.order_line_id
         UNION ALL
        SELECT r.id, 'shipping', 'charge', NULL, o.shipping_tax_rate, r.shipping_refund
          FROM returns r
          JOIN orders o ON o.id = r.order_id
         WHERE r.shipping_refund <> 0) c
 WHERE c.return_id = ANY (%(keys)s::bigint[])
 ORDER BY c.key
