-- For how many seconds of its copy (worked) no task that began before it was being
-- copied: the sum is the time in which at least one was. earlier is the window of the
-- rows before, by lower(worked). PostgreSQL 13 has no range_agg.
extract(epoch from greatest(upper(worked) - greatest(lower(worked), max(upper(worked)) over earlier), '0'))
