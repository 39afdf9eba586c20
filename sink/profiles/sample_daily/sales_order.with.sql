-- The orders of each buyer and day. `ready`: not an unpaid one, which may still vanish. `cancelled`: all of them are.
-- `counts`: its lines are part of the ERP's order; those of a cancelled one are not, unless all are cancelled.
WITH every AS (
    SELECT o.customer_id || ':' || to_char(o.placed_at AT TIME ZONE 'Europe/Berlin', 'YYYY-MM-DD') AS day_key,
           o.id, o.number, o.customer_id, o.status::text AS status, o.currency, o.placed_at, o.shipping_gross,
           o.shipping_tax_rate, o.shipping_tax, o.net, o.tax, o.gross,
           o.status::text <> 'pending'
               AND (o.status::text <> 'cancelled' OR EXISTS (SELECT FROM payments p WHERE p.order_id = o.id)) AS ready
      FROM orders o
     WHERE o.customer_id = ANY (SELECT split_part(key, ':', 1)::bigint FROM unnest(%(keys)s::text[]) AS key)
), placed AS (
    SELECT of_day.*, ready AND (cancelled OR status <> 'cancelled') AS counts
      FROM (SELECT every.*,
                   coalesce(bool_and(status = 'cancelled') FILTER (WHERE ready) OVER (PARTITION BY day_key), false)
                       AS cancelled
              FROM every
             WHERE day_key = ANY (%(keys)s::text[])) AS of_day
)
