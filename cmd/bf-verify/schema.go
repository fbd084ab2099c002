package main

import (
	"bf/lib/cli"
	"bf/lib/schema"
	"bf/lib/task"
)

// compareSchemas prints what the schemas differ in.
func compareSchemas(e *cli.Env, f *flags) error {
	e.Stop.Immediately()
	c, err := schema.Compare(e.Stop.Context, f.Source, f.Target, e.Options())
	if err != nil {
		return err
	}
	for _, d := range c.Differences {
		e.Log.Warn("%s", d)
		if err := task.Write(e.Stdout, d); err != nil {
			return err
		}
	}
	e.Log.Info("%d objects of the source compared: %d differences", c.Objects, len(c.Differences))
	if c.Resume != "" {
		e.Log.Info("jobs that are scheduled on the source are paused on the target; after the switch: %s", c.Resume)
	}
	if len(c.Differences) > 0 {
		return cli.Exit(cli.Differs)
	}
	return nil
}
