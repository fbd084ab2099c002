-- The plan as a temporary table, to be compared with the tasks; n is its order.
create temporary table staged (n bigint, like __backfill.task including generated including defaults) on commit drop;
alter table pg_temp.staged alter priority drop not null;
