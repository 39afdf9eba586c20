-- An order in oscar. A Pending order still waits for its money, and an order that was cancelled unpaid is left out.
-- oscar has one e-mail field for guests and writes it as typed, so a guest is known by the e-mail in lower case.
SELECT o.id::text                                                                       AS key,
       o.number                                                                         AS number,
       COALESCE(o.user_id::text, 'guest:' || NULLIF(lower(btrim(o.guest_email)), ''))   AS customer,
       o.date_placed                                                                    AS placed_at,
       o.currency                                                                       AS currency,
       CASE o.status WHEN 'Cancelled' THEN 'cancelled' ELSE 'open' END                  AS status,
       true                                                                             AS tax_included,
       o.total_excl_tax                                                                 AS net,
       o.total_incl_tax - o.total_excl_tax                                              AS tax,
       o.total_incl_tax                                                                 AS gross,
       o.status <> 'Pending'
           AND (o.status <> 'Cancelled' OR EXISTS (
                    SELECT FROM order_paymentevent e
                      JOIN order_paymenteventtype t ON t.id = e.event_type_id
                     WHERE e.order_id = o.id AND t.code = 'settled'))                  AS ready
  FROM order_order o
 WHERE o.id = ANY (%(keys)s::integer[])
