-- How many locks a statement on the table $1 takes that does not leave children
-- out when it is planned (DELETE, UPDATE): one for each child and each of its
-- indexes. And what the server's lock table has room for: so many per slot, in so
-- many slots.
select (select count(*) from pg_inherits where inhparent = $1)
           * (1 + (select count(*) from pg_index where indrelid = $1)) as needed,
       current_setting('max_locks_per_transaction')::bigint as per_slot,
       current_setting('max_connections')::bigint + current_setting('autovacuum_max_workers')::bigint + 1
           + current_setting('max_worker_processes')::bigint + current_setting('max_wal_senders')::bigint
           + current_setting('max_prepared_transactions')::bigint as slots
