-- Goods that come back: a shipping event of the kind Returned. The kinds are rows of the shop, known by their code.
SELECT e.id::text                     AS key,
       o.number || '-R' || e.id       AS number,
       e.order_id::text               AS "order",
       e.date_created                 AS returned_at,
       true                           AS ready
  FROM order_shippingevent e
  JOIN order_shippingeventtype t ON t.id = e.event_type_id
  JOIN order_order o ON o.id = e.order_id
 WHERE e.id = ANY (%(keys)s::integer[])
   AND t.code = 'returned'
