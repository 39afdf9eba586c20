SELECT q.event_id::text         AS parent,
       q.id::text               AS key,
       q.line_id::text          AS order_line,
       q.quantity               AS quantity,
       NULLIF(e.notes, '')      AS reason
  FROM order_shippingeventquantity q
  JOIN order_shippingevent e ON e.id = q.event_id
 WHERE q.event_id = ANY (%(keys)s::integer[])
 ORDER BY q.id
