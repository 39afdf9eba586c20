-- Registered buyers by their id. Guests by `guest:` and their e-mail in lower case: oscar has no rows for guests, only
-- their orders, and the latest order gives the name.
SELECT u.id::text                                                                          AS key,
       'registered'                                                                        AS kind,
       COALESCE(NULLIF(concat_ws(' ', NULLIF(u.first_name, ''), NULLIF(u.last_name, '')), ''),
                NULLIF(u.email, ''), u.username)                                           AS name,
       NULLIF(lower(btrim(u.email)), '')                                                   AS email,
       true                                                                                AS ready
  FROM auth_user u
 WHERE u.id = ANY (SELECT key::integer FROM unnest(%(keys)s::text[]) key WHERE key ~ '^\d+$')
UNION ALL
(SELECT DISTINCT ON (guest.key)
       guest.key,
       'guest',
       COALESCE(NULLIF(concat_ws(' ', NULLIF(a.first_name, ''), NULLIF(a.last_name, '')), ''), guest.email),
       guest.email,
       true
  FROM order_order o
 CROSS JOIN LATERAL (SELECT lower(btrim(o.guest_email)) AS email, 'guest:' || lower(btrim(o.guest_email)) AS key) guest
  LEFT JOIN order_shippingaddress a ON a.id = o.shipping_address_id
 WHERE o.user_id IS NULL
   AND guest.key = ANY (%(keys)s::text[])
   AND guest.email <> ''
 ORDER BY guest.key, (a.id IS NULL), o.id DESC)
