SELECT return_id::text AS parent, id::text AS key, order_line_id::text AS order_line, quantity, reason
  FROM return_lines
 WHERE return_id = ANY (%(keys)s::bigint[])
 ORDER BY id
