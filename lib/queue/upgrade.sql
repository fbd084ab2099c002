-- From version 1, which knew chunks only, to version 2.
alter table __backfill.task
    drop constraint task_chunk_schema_chunk_name_key,
    add left_uncompressed text,
    add kind text not null default 'chunk',
    add into_schema name,
    add into_name name,
    add scan jsonb;
alter table __backfill.task
    add key text[] not null generated always as (case kind
        when 'chunk' then array[chunk_schema, chunk_name]::text[]
        else array[coalesce(into_schema, hypertable_schema), coalesce(into_name, hypertable_name),
                   dimensions->0->>'from']::text[] end) stored,
    add unique (key);
create index on __backfill.task using gist (int8range((filter->>'from')::bigint, (filter->>'until')::bigint));
update __backfill.version set version = 2;
