-- A small real shop: prices with tax included, two tax rates, money as numeric, an order and its lines in one transaction.

CREATE TYPE order_status AS ENUM
    ('pending', 'paid', 'shipped', 'cancelled', 'return_requested', 'returned', 'discounted');

CREATE TABLE customers (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('registered', 'guest', 'company')),
    name        text NOT NULL,
    email       text NOT NULL,
    company     text,
    tax_id      text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'company') = (tax_id IS NOT NULL))
);
COMMENT ON TABLE customers IS 'Who buys: registered people, guests (one row each e-mail), companies';
COMMENT ON COLUMN customers.tax_id IS 'VAT number, companies only';
CREATE UNIQUE INDEX customers_email ON customers (lower(email), kind);

CREATE TABLE addresses (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    kind        text NOT NULL CHECK (kind IN ('billing', 'shipping')),
    name        text NOT NULL,
    company     text,
    street      text NOT NULL,
    postcode    text NOT NULL,
    city        text NOT NULL,
    country     char(2) NOT NULL DEFAULT 'DE'
);
CREATE INDEX addresses_customer ON addresses (customer_id);

CREATE TABLE products (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku         text NOT NULL UNIQUE,
    name        text NOT NULL,
    price       numeric(12,2) NOT NULL CHECK (price >= 0),
    tax_rate    numeric(5,2) NOT NULL,
    attributes  jsonb NOT NULL DEFAULT '{}',
    active      boolean NOT NULL DEFAULT true,
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN products.price IS 'List price, tax included';

CREATE TABLE product_prices (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id       bigint NOT NULL REFERENCES products,
    price            numeric(12,2) NOT NULL CHECK (price >= 0),
    valid_from       timestamptz NOT NULL,
    valid_until      timestamptz NOT NULL,
    minimum_quantity integer NOT NULL DEFAULT 1 CHECK (minimum_quantity > 0),
    CHECK (valid_until > valid_from)
);
COMMENT ON TABLE product_prices IS 'Temporary discounts: a price for a time. Their start and end write nothing here';

CREATE SEQUENCE order_number START 100001;

CREATE TABLE orders (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number            text NOT NULL UNIQUE DEFAULT 'S' || nextval('order_number'),
    customer_id       bigint NOT NULL REFERENCES customers,
    status            order_status NOT NULL DEFAULT 'pending',
    currency          char(3) NOT NULL DEFAULT 'EUR',
    shipping_gross    numeric(12,2) NOT NULL DEFAULT 0,
    shipping_tax_rate numeric(5,2) NOT NULL DEFAULT 19,
    shipping_tax      numeric(12,2) NOT NULL DEFAULT 0,
    net               numeric(12,2) NOT NULL,
    tax               numeric(12,2) NOT NULL,
    gross             numeric(12,2) NOT NULL,
    note              text,
    meta              jsonb NOT NULL DEFAULT '{}',
    placed_at         timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CHECK (net + tax = gross)
);
COMMENT ON COLUMN orders.gross IS 'What the buyer pays: lines - discounts + shipping';
CREATE INDEX orders_customer ON orders (customer_id);

CREATE TABLE order_addresses (
    order_id    bigint NOT NULL REFERENCES orders,
    kind        text NOT NULL CHECK (kind IN ('billing', 'shipping')),
    name        text NOT NULL,
    company     text,
    street      text NOT NULL,
    postcode    text NOT NULL,
    city        text NOT NULL,
    country     char(2) NOT NULL,
    PRIMARY KEY (order_id, kind)
);
COMMENT ON TABLE order_addresses IS 'The addresses as they were when the order was placed';

CREATE TABLE order_lines (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id    bigint NOT NULL REFERENCES orders,
    product_id  bigint NOT NULL REFERENCES products,
    sku         text NOT NULL,
    name        text NOT NULL,
    quantity    integer NOT NULL CHECK (quantity > 0),
    unit_price  numeric(12,2) NOT NULL,
    discount    numeric(12,2) NOT NULL DEFAULT 0,
    tax_rate    numeric(5,2) NOT NULL,
    gross       numeric(12,2) NOT NULL,
    tax         numeric(12,2) NOT NULL,
    CHECK (gross = quantity * unit_price - discount)
);
COMMENT ON COLUMN order_lines.discount IS 'On the whole line, tax included';
CREATE INDEX order_lines_order ON order_lines (order_id);

CREATE TABLE order_discounts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id    bigint NOT NULL REFERENCES orders,
    code        text,
    name        text NOT NULL,
    tax_rate    numeric(5,2) NOT NULL,
    gross       numeric(12,2) NOT NULL CHECK (gross >= 0),
    tax         numeric(12,2) NOT NULL
);
COMMENT ON TABLE order_discounts IS 'Discounts on a whole order, a row for each tax rate they lower';
CREATE INDEX order_discounts_order ON order_discounts (order_id);

CREATE TABLE payments (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id    bigint NOT NULL REFERENCES orders,
    means       text NOT NULL,
    amount      numeric(12,2) NOT NULL,
    reference   text,
    paid_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payments_order ON payments (order_id);

CREATE TABLE returns (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id     bigint NOT NULL REFERENCES orders,
    status       text NOT NULL DEFAULT 'requested' CHECK (status IN ('requested', 'received', 'refunded', 'rejected')),
    shipping_refund numeric(12,2) NOT NULL DEFAULT 0,
    requested_at timestamptz NOT NULL DEFAULT now(),
    received_at  timestamptz,
    refunded_at  timestamptz
);
CREATE INDEX returns_order ON returns (order_id);

CREATE TABLE return_lines (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    return_id     bigint NOT NULL REFERENCES returns,
    order_line_id bigint NOT NULL REFERENCES order_lines,
    quantity      integer NOT NULL CHECK (quantity > 0),
    reason        text NOT NULL,
    refund_amount numeric(12,2) NOT NULL CHECK (refund_amount >= 0)
);
COMMENT ON COLUMN return_lines.refund_amount IS 'What the buyer gets back for this line, tax included';
CREATE INDEX return_lines_return ON return_lines (return_id);
