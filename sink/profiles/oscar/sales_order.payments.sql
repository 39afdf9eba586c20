-- Money that came in. oscar keeps the event and the means apart; what they share is the provider's reference.
SELECT e.order_id::text                          AS parent,
       e.id::text                                AS key,
       COALESCE(source.means, t.name)            AS means,
       e.amount                                  AS amount,
       e.date_created                            AS paid_at,
       NULLIF(e.reference, '')                   AS reference
  FROM order_paymentevent e
  JOIN order_paymenteventtype t ON t.id = e.event_type_id
  LEFT JOIN LATERAL (
           SELECT st.name AS means
             FROM payment_source s
             JOIN payment_sourcetype st ON st.id = s.source_type_id
            WHERE s.order_id = e.order_id
              AND s.reference = e.reference
            ORDER BY s.id
            LIMIT 1) source ON true
 WHERE e.order_id = ANY (%(keys)s::integer[])
   AND t.code = 'settled'
 ORDER BY e.id
