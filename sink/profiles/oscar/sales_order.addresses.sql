-- The addresses as copied on the order. oscar has no column for the city: it is line4, and the country's key is its
-- ISO code. Downloads are not shipped and have no address.
SELECT o.id::text                                            AS parent,
       'shipping:' || a.id                                   AS key,
       'shipping'                                            AS kind,
       concat_ws(' ', NULLIF(a.first_name, ''), NULLIF(a.last_name, ''))                     AS name,
       concat_ws(', ', NULLIF(a.line1, ''), NULLIF(a.line2, ''), NULLIF(a.line3, ''))        AS street,
       a.postcode                                            AS postcode,
       a.line4                                               AS city,
       a.country_id                                          AS country
  FROM order_order o
  JOIN order_shippingaddress a ON a.id = o.shipping_address_id
 WHERE o.id = ANY (%(keys)s::integer[])
UNION ALL
SELECT o.id::text,
       'billing:' || a.id,
       'billing',
       concat_ws(' ', NULLIF(a.first_name, ''), NULLIF(a.last_name, '')),
       concat_ws(', ', NULLIF(a.line1, ''), NULLIF(a.line2, ''), NULLIF(a.line3, '')),
       a.postcode,
       a.line4,
       a.country_id
  FROM order_order o
  JOIN order_billingaddress a ON a.id = o.billing_address_id
 WHERE o.id = ANY (%(keys)s::integer[])
