-- An unpaid order may still vanish, so it is carried over once it is paid. An order cancelled unpaid is left out.
SELECT o.id::text                                                              AS key,
       o.number                                                                AS number,
       o.customer_id::text                                                     AS customer,
       o.placed_at                                                             AS placed_at,
       o.currency                                                              AS currency,
       CASE o.status::text WHEN 'cancelled' THEN 'cancelled' ELSE 'open' END   AS status,
       true                                                                    AS tax_included,
       o.net, o.tax, o.gross,
       o.status::text <> 'pending'
           AND (o.status::text <> 'cancelled' OR EXISTS (SELECT FROM payments p WHERE p.order_id = o.id)) AS ready
  FROM orders o
 WHERE o.id = ANY (%(keys)s::bigint[])
