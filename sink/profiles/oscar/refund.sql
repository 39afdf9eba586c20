-- Money that goes back: a payment event of the kind Refunded.
SELECT e.id::text                            AS key,
       o.number || '-P' || e.id              AS number,
       e.order_id::text                      AS "order",
       e.shipping_event_id::text             AS return_order,
       o.currency                            AS currency,
       e.date_created                        AS refunded_at,
       COALESCE(source.means, '')            AS means,
       e.amount                              AS gross,
       true                                  AS ready
  FROM order_paymentevent e
  JOIN order_paymenteventtype t ON t.id = e.event_type_id
  JOIN order_order o ON o.id = e.order_id
  LEFT JOIN LATERAL (
           SELECT st.name AS means
             FROM payment_source s
             JOIN payment_sourcetype st ON st.id = s.source_type_id
            WHERE s.order_id = e.order_id
            ORDER BY s.id
            LIMIT 1) source ON true
 WHERE e.id = ANY (%(keys)s::integer[])
   AND t.code = 'refunded'
