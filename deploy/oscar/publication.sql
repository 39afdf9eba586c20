-- What leaves an oscar shop: the tables of the profile `oscar`, and of auth_user neither password hashes nor rights.
-- PostgreSQL 15 or later; 14 has no column lists.
CREATE PUBLICATION ordertap FOR TABLE
    auth_user (id, username, first_name, last_name, email, is_active),
    address_useraddress,
    order_order,
    order_line,
    order_surcharge,
    order_shippingaddress,
    order_billingaddress,
    order_shippingeventtype,
    order_shippingevent,
    order_shippingeventquantity,
    order_paymenteventtype,
    order_paymentevent,
    order_paymenteventquantity,
    payment_sourcetype,
    payment_source,
    partner_stockrecord;
