SELECT order_id::text AS parent, id::text AS key, means, amount, paid_at, reference
  FROM payments
 WHERE order_id = ANY (%(keys)s::bigint[])
 ORDER BY id
