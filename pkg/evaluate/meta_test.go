package evaluate

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/pkg/nix"
)

// The plain data in the meta of packages: a meta that throws is no failure, and it is only
// evaluated on request.
func TestMeta(t *testing.T) {
	eachNixAlso(t, func(t *testing.T, n *nix.Nix) {
		ref := flake(t, `let
			with' = name: meta: d name // { inherit meta; };
			many = size: builtins.genList (n: "a text of some length") size;
			loop = { x = "x"; next = loop; };
		in {
			packages.x86_64-linux = {
				aborts = with' "aborts" { homepage = ({ x }: x) { }; };
				broken = with' "broken" { broken = true; license.free = false; };
				deep = with' "deep" { a = loop; b = "after"; };
				fine = with' "fine" {
					description = "It's \"fine\" \\ \${x}\n\té";
					license = [ { spdxId = "MIT"; free = true; } { spdxId = "BSD-3-Clause"; free = true; } ];
					priority = -5; ratio = 0.5; hydraPlatforms = [ ]; mainProgram = null;
				};
				large = with' "large" { a = many 10000; b = many 100; c = builtins.listToAttrs (map (n: { name = "n${toString n}"; value = n; }) (builtins.genList (n: n) 10000)); d = "d"; };
				lots = with' "lots" (builtins.listToAttrs (builtins.genList (n: { name = "n${toString (1000 + n)}"; value = many 100; }) 1000));
				none = d "none";
				odd = with' "odd" {
					drv = d "x"; fun = x: x; throws = throw "t"; assertion = assert false; 1; path = /etc;
					in' = { outPath = "o"; __toString = self: "s"; fun = x: x; list = [ 1 (throw "x") (x: x) (d "y") 2 ]; };
					outPath = "o"; context = "of ${d "z"}"; drvs = { type = "derivation"; };
				};
				text = with' "text" "no set";
				throws = with' "throws" (throw "x");
				z = with' "z" { homepage = "after all"; };
			};
			nixosConfigurations.a = host "a" // { meta = { nixMatrix.runner = "metal"; tier = 1; }; };
		}`)
		o := Options{Installables: []string{ref}}
		got, d := look(t, n, o)
		for _, meta := range d.Meta {
			if len(meta) > 0 {
				t.Errorf("nobody asked for %s", meta)
			}
		}
		o.Meta = true
		again, d := look(t, n, o)
		if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("with meta (-without +with):\n%s", diff)
		}
		metas := map[string]any{}
		for i, target := range d.Targets {
			var meta any
			if len(d.Meta[i]) > 0 {
				if err := json.Unmarshal(d.Meta[i], &meta); err != nil {
					t.Fatal(err)
				}
			}
			if len(d.Meta[i]) > 80<<10 {
				t.Errorf("the meta of %s has %d bytes", target.Name, len(d.Meta[i]))
			}
			metas[strings.TrimPrefix(target.Name, "packages.x86_64-linux.")] = meta
		}
		type set = map[string]any
		lots, _ := metas["lots"].(set)
		if len(lots) < 10 || len(lots) > 100 {
			t.Errorf("of 1000 fields there are %d", len(lots))
		}
		delete(metas, "lots")
		large, _ := metas["large"].(set)
		b, _ := large["b"].([]any)
		if len(large) != 2 || len(b) != 100 || large["d"] != "d" {
			t.Errorf("of what is large there is %v", large)
		}
		delete(metas, "large")
		context, _ := metas["odd"].(set)
		if text, _ := context["context"].(string); !strings.HasSuffix(text, "-z") {
			t.Errorf("a text with a context is %q", text)
		}
		delete(context, "context")
		want := set{
			"aborts": nil,
			"broken": set{"broken": true, "license": set{"free": false}},
			"deep":   set{"a": set{"x": "x", "next": set{"x": "x", "next": set{"x": "x", "next": set{"x": "x", "next": set{"x": "x", "next": set{"x": "x"}}}}}}, "b": "after"},
			"fine": set{
				"description": "It's \"fine\" \\ ${x}\n\té",
				"license":     []any{set{"spdxId": "MIT", "free": true}, set{"spdxId": "BSD-3-Clause", "free": true}},
				"priority":    -5.0, "ratio": 0.5, "hydraPlatforms": []any{}, "mainProgram": nil,
			},
			"none":                  set{},
			"nixosConfigurations.a": set{"nixMatrix": set{"runner": "metal"}, "tier": 1.0},
			"odd":                   set{"in'": set{"list": []any{1.0, 2.0}}},
			"text":                  set{},
			"throws":                nil, // which is no target that can be evaluated
			"z":                     set{"homepage": "after all"},
		}
		if diff := cmp.Diff(want, metas); diff != "" {
			t.Error(diff)
		}
	})
}
