package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/org/nix-matrix/pkg/job"
)

// attacks are single changes to a run, by a job that can write its artifacts. other is another
// run of the same workflow, in which all is good. They report whether there is anything
// to change. A job without the key can't seal; and whose word the jobs' own end confirms in
// nothing, in clear and with jobs that always pass, can be made up as a whole: there only
// what changes a part of it is an attack.
var attacks = map[string]func(g, other *gate) bool{
	"drop a file":     func(g, _ *gate) bool { return g.change("", func([]byte) []byte { return nil }) },
	"truncate a file": func(g, _ *gate) bool { return g.change("", func(d []byte) []byte { return d[:g.random.IntN(len(d))] }) },
	"empty a file":    func(g, _ *gate) bool { return g.change("", func([]byte) []byte { return []byte{} }) },
	"make a file long": func(g, _ *gate) bool {
		return g.change("", func(d []byte) []byte { return append(slices.Clone(d), d...) })
	},
	"write no document": func(g, _ *gate) bool { return g.change("", func([]byte) []byte { return []byte("{}") }) },
	"flip a bit": func(g, _ *gate) bool {
		return g.change("", func(d []byte) []byte {
			d = slices.Clone(d)
			d[g.random.IntN(len(d))] ^= 1 << g.random.IntN(8)
			return d
		})
	},
	"replace the plan by that of another run": func(g, other *gate) bool {
		g.files["plan.json"] = other.files["plan.json"]
		return true
	},
	"replace a result by that of another run": func(g, other *gate) bool {
		names := g.names("results/")
		if len(names) == 0 {
			return false
		}
		name := names[g.random.IntN(len(names))]
		g.files[name] = other.files[name]
		return g.files[name] != nil
	},
	"add a result of another run": func(g, other *gate) bool {
		data := pick(other, "results/")
		g.files["results/more.json"] = data
		return data != nil
	},
	"replace a file by another one": func(g, _ *gate) bool {
		return g.change("", func([]byte) []byte { return pick(g, "") })
	},
	"add a file twice": func(g, _ *gate) bool {
		g.files["results/twice.json"] = pick(g, "")
		return true
	},
	"swap two files": func(g, _ *gate) bool {
		names := g.names("")
		a, b := names[g.random.IntN(len(names))], names[g.random.IntN(len(names))]
		g.files[a], g.files[b] = g.files[b], g.files[a]
		return a != b
	},
	"replace a result by a link": func(g, _ *gate) bool {
		names := g.names("results/")
		if len(names) == 0 {
			return false
		}
		name := names[g.random.IntN(len(names))]
		g.links[name] = string(g.files[name])
		return true
	},

	"forge an empty plan": func(g, _ *gate) bool {
		return g.changePlan(func(p *job.Plan) { p.Targets, p.Entries = []job.Target{}, []job.Entry{} })
	},
	"forge a plan that skips all": func(g, _ *gate) bool {
		return g.changePlan(func(p *job.Plan) {
			p.Entries = []job.Entry{}
			for i := range p.Targets {
				if t := &p.Targets[i]; t.State == job.StateBuild {
					t.State, t.Reason, t.Available = job.StateSkip, "it is there", g.random.IntN(2) == 0
				}
			}
		})
	},
	"forge a plan that wants no outputs": func(g, _ *gate) bool {
		return g.changePlan(func(p *job.Plan) {
			for i := range p.Targets {
				p.Targets[i].Outputs, p.Targets[i].OutPaths = nil, nil
			}
		})
	},
	"forge a plan of this run out of another's": func(g, other *gate) bool {
		plan := *other.plan
		plan.Run, plan.Attempt = g.plan.Run, g.plan.Attempt
		g.files["plan.json"] = marshal(&plan)
		return true
	},
	"forge a whole result": func(g, _ *gate) bool {
		if len(g.plan.Entries) == 0 || g.free() {
			return false
		}
		e := &g.plan.Entries[g.random.IntN(len(g.plan.Entries))]
		g.files["results/"+e.ID+".json"] = marshal(g.done(e, g.planKey()))
		return true
	},
	"change a part of the plan": func(g, _ *gate) bool { return g.edit("plan.json", nil) },
	"change a part of a result": func(g, _ *gate) bool { return g.edit("results/", nil) },
	"change what a result says of success": func(g, _ *gate) bool {
		return g.edit("results/", []string{"outcome", "error", "timedOut"})
	},
	"name another path of an output": func(g, _ *gate) bool {
		return g.key == nil && g.change("results/", func(data []byte) []byte {
			return []byte(strings.Replace(string(data), `"path": "/nix/store/`, `"path": "/nix/store/00000000000000000000000000000000-x`, 1))
		})
	},

	"drop the output plan":   func(g, _ *gate) bool { return g.output("plan", func(string) string { return "" }) },
	"drop the output matrix": func(g, _ *gate) bool { return g.output("matrix", func(string) string { return "" }) },
	"drop the output count":  func(g, _ *gate) bool { return g.output("count", func(string) string { return "" }) },
	"change the output count": func(g, _ *gate) bool {
		return g.output("count", func(string) string { return strconv.Itoa(g.random.IntN(4)) })
	},
	"empty the matrix": func(g, _ *gate) bool { return g.output("matrix", func(string) string { return `{"include":[]}` }) },
	"take another run's matrix": func(g, other *gate) bool {
		return g.output("matrix", func(string) string { return other.needs["discover"].Outputs["matrix"] })
	},
	"name another run's plan": func(g, other *gate) bool { return g.output("plan", func(string) string { return other.planKey() }) },
	"name no plan": func(g, _ *gate) bool {
		delete(g.needs, "discover")
		return true
	},
	"name two plans": func(g, other *gate) bool {
		g.needs["discover2"] = other.needs["discover"]
		return true
	},
	"drop a row of the matrix": func(g, _ *gate) bool {
		return g.output("matrix", func(text string) string {
			var m job.Matrix
			must(json.Unmarshal([]byte(text), &m))
			if len(m.Include) == 0 {
				return text
			}
			at := g.random.IntN(len(m.Include))
			return string(marshal(job.Matrix{Include: slices.Delete(m.Include, at, at+1)}))
		})
	},
}

// free says that nothing but the files says what became of the jobs.
func (g *gate) free() bool { return g.lenient && g.key == nil }

func marshal(doc any) []byte {
	data, err := json.Marshal(doc)
	must(err)
	return data
}

// pick is one of the files of a run, or nil.
func pick(g *gate, prefix string) []byte {
	names := g.names(prefix)
	if len(names) == 0 {
		return nil
	}
	return g.files[names[g.random.IntN(len(names))]]
}

// change changes a file; nil removes it.
func (g *gate) change(prefix string, to func([]byte) []byte) bool {
	names := g.names(prefix)
	if len(names) == 0 {
		return false
	}
	name := names[g.random.IntN(len(names))]
	if len(g.files[name]) == 0 {
		return false
	}
	if g.files[name] = to(g.files[name]); g.files[name] == nil {
		delete(g.files, name)
	}
	return true
}

// changePlan puts a plan in clear in the place of the plan.
func (g *gate) changePlan(change func(*job.Plan)) bool {
	data, err := g.plan.Marshal()
	must(err)
	plan, err := job.ParsePlan(data)
	must(err)
	change(plan)
	g.files["plan.json"] = marshal(plan)
	return true
}

// planKey is what discovery names the plan.
func (g *gate) planKey() string {
	outputs := g.needs["discover"].Outputs
	if key := outputs["plan"]; key != "" {
		return key
	}
	var m job.Matrix
	must(json.Unmarshal([]byte(outputs["matrix"]), &m))
	return m.Include[0].Plan
}

// output changes an output of discovery.
func (g *gate) output(name string, to func(string) string) bool {
	old, ok := g.needs["discover"].Outputs[name]
	if !ok {
		return false
	}
	g.needs["discover"].Outputs[name] = to(old)
	return g.needs["discover"].Outputs[name] != old
}

// edit removes a part of a document in clear, or gives it another value; of parts with
// these names, unless they are nil, a better one.
func (g *gate) edit(prefix string, names []string) bool {
	if g.key != nil || len(g.plan.Entries) == 0 {
		return false // sealed, whatever was changed does not open
	}
	return g.change(prefix, func(data []byte) []byte {
		var doc, again any
		if json.Unmarshal(data, &doc) != nil || json.Unmarshal(data, &again) != nil {
			return data
		}
		places := parts(doc, nil)
		chosen := slices.DeleteFunc(slices.Clone(places), func(way []string) bool { return names != nil && !slices.Contains(names, way[len(way)-1]) })
		if len(chosen) == 0 {
			return data
		}
		place := chosen[g.random.IntN(len(chosen))]
		values := []any{
			nil, true, false, 0, 1, 2, "", "built", "present", "failed", "skip", "build", "done", []any{}, map[string]any{}, g.planKey(),
			"2099-01-01T00:00:00Z", g.plan.Targets[0].Attr, g.plan.Targets[0].DrvPath, g.plan.Entries[0].ID, at(again, places[g.random.IntN(len(places))]),
		}
		if names != nil {
			return marshal(set(doc, place, "built", place[len(place)-1] != "outcome"))
		}
		return marshal(set(doc, place, values[g.random.IntN(len(values))], g.random.IntN(3) == 0))
	})
}

// parts are the ways to all parts of a document.
func parts(doc any, way []string) [][]string {
	var all [][]string
	each := func(key string, value any) {
		next := append(slices.Clone(way), key)
		all = append(append(all, next), parts(value, next)...)
	}
	switch doc := doc.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(doc)) {
			each(key, doc[key])
		}
	case []any:
		for i, value := range doc {
			each(strconv.Itoa(i), value)
		}
	}
	return all
}

func at(doc any, way []string) any {
	for _, key := range way {
		switch part := doc.(type) {
		case map[string]any:
			doc = part[key]
		case []any:
			i, err := strconv.Atoi(key)
			must(err)
			doc = part[i]
		}
	}
	return doc
}

// set sets another value in a part of a document, or removes it.
func set(doc any, way []string, value any, remove bool) any {
	key, last := way[0], len(way) == 1
	switch part := doc.(type) {
	case map[string]any:
		if last && remove {
			delete(part, key)
		} else if last {
			part[key] = value
		} else {
			part[key] = set(part[key], way[1:], value, remove)
		}
		return part
	case []any:
		i, err := strconv.Atoi(key)
		must(err)
		if last && remove {
			return slices.Delete(part, i, i+1)
		} else if last {
			part[i] = value
		} else {
			part[i] = set(part[i], way[1:], value, remove)
		}
		return part
	}
	panic(fmt.Sprintf("%T has no part %s", doc, strings.Join(way, ".")))
}
