-- The ERP's order has one address of each kind. If the orders of a day have several, it is held.
SELECT DISTINCT o.day_key AS parent, a.kind AS key, a.kind, a.name, coalesce(a.company, '') AS company, a.street,
       a.postcode, a.city, a.country
  FROM placed o
  JOIN order_addresses a ON a.order_id = o.id
 WHERE o.counts
 ORDER BY a.kind
