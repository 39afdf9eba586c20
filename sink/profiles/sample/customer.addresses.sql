SELECT customer_id::text AS parent, id::text AS key, kind, name, coalesce(company, '') AS company, street, postcode, city,
       country
  FROM addresses
 WHERE customer_id = ANY (%(keys)s::bigint[])
 ORDER BY id
