-- An order of oscar. It is ready when it is paid, or was cancelled: what oscar calls Pending still waits for its money.
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
       o.status <> 'Pending'                                                            AS ready
  FROM order_order o
 WHERE o.id = ANY (%(keys)s::integer[])
