-- What courier_partners needs to see which partners are bound and reviewed, and nothing more: no customer's table.

GRANT USAGE ON SCHEMA public TO courier_partners;
GRANT SELECT ON partner TO courier_partners;
