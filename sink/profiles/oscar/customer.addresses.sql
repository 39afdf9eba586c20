-- The address book of registered buyers; for guests the shipping address of their latest order that has one.
SELECT a.user_id::text                                       AS parent,
       kind || ':' || a.id                                   AS key,
       kind                                                  AS kind,
       concat_ws(' ', NULLIF(a.first_name, ''), NULLIF(a.last_name, ''))                     AS name,
       concat_ws(', ', NULLIF(a.line1, ''), NULLIF(a.line2, ''), NULLIF(a.line3, ''))        AS street,
       a.postcode                                            AS postcode,
       a.line4                                               AS city,
       a.country_id                                          AS country
  FROM address_useraddress a
 CROSS JOIN LATERAL unnest(CASE WHEN a.is_default_for_billing THEN ARRAY['billing', 'shipping']
                                ELSE ARRAY['shipping'] END) kind
 WHERE a.user_id = ANY (SELECT key::integer FROM unnest(%(keys)s::text[]) key WHERE key ~ '^\d+$')
UNION ALL
(SELECT DISTINCT ON (guest.key)
       guest.key,
       'shipping:' || a.id,
       'shipping',
       concat_ws(' ', NULLIF(a.first_name, ''), NULLIF(a.last_name, '')),
       concat_ws(', ', NULLIF(a.line1, ''), NULLIF(a.line2, ''), NULLIF(a.line3, '')),
       a.postcode,
       a.line4,
       a.country_id
  FROM order_order o
 CROSS JOIN LATERAL (SELECT 'guest:' || lower(btrim(o.guest_email)) AS key) guest
  JOIN order_shippingaddress a ON a.id = o.shipping_address_id
 WHERE o.user_id IS NULL
   AND guest.key = ANY (%(keys)s::text[])
 ORDER BY guest.key, o.id DESC)
