-- As in `sample`, but of the order of that day.
SELECT r.id::text AS key, o.number || '-R' || r.id AS number,
       o.customer_id || ':' || to_char(o.placed_at AT TIME ZONE 'Europe/Berlin', 'YYYY-MM-DD') AS "order",
       r.received_at AS returned_at, r.status IN ('received', 'refunded') AS ready
  FROM returns r
  JOIN orders o ON o.id = r.order_id
 WHERE r.id = ANY (%(keys)s::bigint[])
   AND EXISTS (SELECT FROM return_lines l WHERE l.return_id = r.id)
