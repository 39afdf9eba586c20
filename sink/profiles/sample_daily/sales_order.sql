-- It is dated to noon, which is on that day in every time zone of an ERP, and ready once the day has ended.
SELECT d.day_key                                                              AS key,
       'D' || replace(d.day_key, ':', '-')                                    AS number,
       d.customer_id::text                                                    AS customer,
       (d.day + time '12:00') AT TIME ZONE 'Europe/Berlin'                    AS placed_at,
       d.currency                                                             AS currency,
       CASE WHEN d.cancelled THEN 'cancelled' ELSE 'open' END                 AS status,
       true                                                                   AS tax_included,
       d.net, d.tax, d.gross, d.ready,
       (d.day + 1)::timestamp AT TIME ZONE 'Europe/Berlin'                    AS ready_at
  FROM (SELECT day_key, split_part(day_key, ':', 2)::date AS day, customer_id, currency, cancelled,
               coalesce(sum(net) FILTER (WHERE counts), 0) AS net, coalesce(sum(tax) FILTER (WHERE counts), 0) AS tax,
               coalesce(sum(gross) FILTER (WHERE counts), 0) AS gross, bool_or(ready) AS ready
          FROM placed
         GROUP BY day_key, customer_id, currency, cancelled) AS d
