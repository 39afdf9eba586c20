-- As in `sample`, but of the order of that day.
SELECT r.id::text AS key, o.number || '-G' || r.id AS number,
       o.customer_id || ':' || to_char(o.placed_at AT TIME ZONE 'Europe/Berlin', 'YYYY-MM-DD') AS "order",
       r.id::text AS return_order, o.currency, r.refunded_at,
       coalesce((SELECT p.means FROM payments p WHERE p.order_id = o.id ORDER BY p.id LIMIT 1), '') AS means,
       r.shipping_refund + (SELECT coalesce(sum(l.refund_amount), 0) FROM return_lines l WHERE l.return_id = r.id) AS gross,
       r.status = 'refunded' AS ready
  FROM returns r
  JOIN orders o ON o.id = r.order_id
 WHERE r.id = ANY (%(keys)s::bigint[])
