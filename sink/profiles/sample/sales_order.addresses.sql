SELECT order_id::text AS parent, kind AS key, kind, name, coalesce(company, '') AS company, street, postcode, city, country
  FROM order_addresses
 WHERE order_id = ANY (%(keys)s::bigint[])
 ORDER BY kind
