SELECT id::text AS key, kind, name, email, company, tax_id, true AS ready
  FROM customers
 WHERE id = ANY (%(keys)s::bigint[])
