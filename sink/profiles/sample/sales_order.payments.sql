-- Money given back may be booked here too, with the number of its refund. The refund carries it over.
SELECT p.order_id::text AS parent, p.id::text AS key, p.means, p.amount, p.paid_at, p.reference,
       CASE WHEN p.amount < 0 THEN
           (SELECT r.id::text
              FROM returns r
              JOIN orders o ON o.id = r.order_id
             WHERE r.order_id = p.order_id
               AND r.status = 'refunded'
               AND o.number || '-G' || r.id = p.reference) END AS refund
  FROM payments p
 WHERE p.order_id = ANY (%(keys)s::bigint[])
 ORDER BY p.id
