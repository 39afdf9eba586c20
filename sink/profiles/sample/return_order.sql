-- Goods that are back in the warehouse; a request alone moves nothing, and neither does money for shipping alone.
SELECT r.id::text AS key, o.number || '-R' || r.id AS number, r.order_id::text AS "order", r.received_at AS returned_at,
       r.status IN ('received', 'refunded') AS ready
  FROM returns r
  JOIN orders o ON o.id = r.order_id
 WHERE r.id = ANY (%(keys)s::bigint[])
   AND EXISTS (SELECT FROM return_lines l WHERE l.return_id = r.id)
