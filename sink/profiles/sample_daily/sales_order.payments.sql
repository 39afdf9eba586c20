-- Those of a cancelled order, too: the buyer has paid them, until money is given back.
SELECT o.day_key AS parent, p.id::text AS key, p.means, p.amount, p.paid_at, p.reference,
       CASE WHEN p.amount < 0 THEN
           (SELECT r.id::text
              FROM returns r
             WHERE r.order_id = p.order_id
               AND r.status = 'refunded'
               AND o.number || '-G' || r.id = p.reference) END AS refund
  FROM placed o
  JOIN payments p ON p.order_id = o.id
 WHERE o.ready
 ORDER BY p.id
