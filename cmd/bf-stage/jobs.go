package main

import (
	"context"

	"bf/lib/cli"
	"bf/lib/jobs"
	"bf/lib/stage"
	"bf/lib/tsdb"
)

// sourceJobs names the jobs of the source that can drop or rewrite a chunk before
// it is copied. bf never writes to the source, so the user has to pause them.
func sourceJobs(ctx context.Context, src *tsdb.DB, p *stage.Plan, log *cli.Log) error {
	js, err := src.Jobs(ctx, p.Hypertables)
	if err != nil {
		return err
	}
	for _, j := range js {
		if j.Scheduled && (j.Kind == tsdb.Retention || j.Kind == tsdb.Compression) {
			log.Info("source: %s is scheduled%s and can change chunks before they are copied; to pause it: %s",
				j, running(j), jobs.Statement(src, j))
		}
	}
	return nil
}

// targetJobs pauses the jobs of the target on what is staged, or prints how to.
func targetJobs(ctx context.Context, dst *tsdb.DB, p *stage.Plan, pause bool, log *cli.Log) error {
	all, err := dst.Hypertables(ctx)
	if err != nil {
		return err
	}
	var mine []*tsdb.Hypertable
	for _, h := range p.Hypertables {
		if c := p.Counterpart(all, h); c != nil {
			mine = append(mine, c)
		}
	}
	js, err := dst.Jobs(ctx, tsdb.Affected(all, mine))
	if err != nil {
		return err
	}
	for _, j := range js {
		switch {
		case !j.Scheduled && j.Running:
			log.Info("target: %s is paused but%s", j, running(j))
		case !j.Scheduled:
		case pause:
			if err := jobs.Pause(ctx, dst, j); err != nil {
				return err
			}
			log.Info("target: %s is paused until bf-clean%s", j, running(j))
		default:
			log.Info("target: %s is scheduled%s; to pause it: %s", j, running(j), jobs.Statement(dst, j))
		}
	}
	return nil
}

func running(j *tsdb.Job) string {
	if j.Running {
		return " (running at the moment: let it end before copying)"
	}
	return ""
}
