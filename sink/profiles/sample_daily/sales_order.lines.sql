-- Its name begins with the number of the shop's order.
SELECT o.day_key AS parent, l.id::text AS key, l.sku, o.number || ': ' || l.name AS name, l.quantity, l.unit_price,
       l.discount, l.tax_rate, l.gross - l.tax AS net, l.tax, l.gross
  FROM placed o
  JOIN order_lines l ON l.order_id = o.id
 WHERE o.counts
 ORDER BY o.placed_at, o.id, l.id
