SELECT o.day_key AS parent, d.id::text AS key, o.number || ': ' || d.name AS name, d.code, d.tax_rate,
       d.gross - d.tax AS net, d.tax, d.gross
  FROM placed o
  JOIN order_discounts d ON d.order_id = o.id
 WHERE o.counts
 ORDER BY o.placed_at, o.id, d.id
