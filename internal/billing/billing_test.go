package billing_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/nix-matrix/internal/billing"
)

func TestKindOf(t *testing.T) {
	labels := func(all ...string) billing.Machine { return billing.Machine{Labels: all} }
	hosted := func(os string, arm bool, cores int, all ...string) billing.Machine {
		return billing.Machine{OS: os, ARM: arm, Hosted: true, Cores: cores, Labels: all}
	}
	for name, test := range map[string]struct {
		machine billing.Machine
		want    billing.Kind
	}{
		"by the label":            {labels("ubuntu-latest"), billing.Kind{Name: "Linux", Factor: 1, Known: true}},
		"arm":                     {labels("ubuntu-24.04-arm"), billing.Kind{Name: "Linux arm64", Factor: 1, Known: true}},
		"slim":                    {labels("ubuntu-slim"), billing.Kind{Name: "Linux 1-core", Factor: 2. / 6, Known: true}},
		"windows":                 {labels("windows-2025"), billing.Kind{Name: "Windows", Factor: 2, Known: true}},
		"macOS":                   {labels("macos-latest"), billing.Kind{Name: "macOS", Factor: 10, Known: true}},
		"macOS on Intel":          {labels("macos-15-intel"), billing.Kind{Name: "macOS", Factor: 10, Known: true}},
		"standard in public":      {hosted("Linux", false, 4, "ubuntu-24.04"), billing.Kind{Name: "Linux", Factor: 1, Known: true}},
		"standard without labels": {hosted("Linux", true, 4), billing.Kind{Name: "Linux arm64", Factor: 1, Known: true}},
		"larger without labels":   {hosted("Linux", false, 8), billing.Kind{Name: "Linux 8-core", Factor: 22. / 6, Larger: true, Known: true}},
		"larger":                  {hosted("Linux", false, 16, "big"), billing.Kind{Name: "Linux 16-core", Factor: 7, Larger: true, Known: true}},
		"larger by the label":     {labels("ubuntu-latest-16-cores"), billing.Kind{Name: "Linux 16-core", Factor: 7, Larger: true, Known: true}},
		"larger of odd size":      {hosted("Linux", false, 20, "big"), billing.Kind{Name: "Linux 20-core", Factor: 1, Larger: true}},
		"larger of unknown size":  {labels("ubuntu-big"), billing.Kind{Name: "Linux, larger", Factor: 1, Larger: true}},
		"large macOS":             {labels("macos-15-large"), billing.Kind{Name: "macOS 12-core", Factor: 77. / 6, Larger: true, Known: true}},
		"extra large macOS":       {hosted("macOS", true, 5, "macos-latest-xlarge"), billing.Kind{Name: "macOS arm64 5-core", Factor: 17, Larger: true, Known: true}},
		"own":                     {labels("self-hosted", "linux"), billing.Kind{Name: "self-hosted", Own: true, Known: true}},
		"own by the machine":      {billing.Machine{OS: "Linux", Own: true, Cores: 64, Labels: []string{"builder"}}, billing.Kind{Name: "self-hosted", Own: true, Known: true}},
		"unknown":                 {labels("builder"), billing.Kind{Name: "other runners", Factor: 1}},
		"nothing":                 {billing.Machine{}, billing.Kind{Name: "other runners", Factor: 1}},
	} {
		if diff := cmp.Diff(test.want, billing.KindOf(test.machine)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestMinutes(t *testing.T) {
	for took, want := range map[time.Duration]int{-time.Second: 1, 0: 1, 1: 1, time.Minute: 1, time.Minute + 1: 2, 61 * time.Minute: 61} {
		if got := billing.Minutes(took); got != want {
			t.Errorf("Minutes(%v) = %d, want %d", took, got, want)
		}
	}
}

// Each job is rounded up for itself.
func TestBill(t *testing.T) {
	var b billing.Bill
	linux, mac := billing.Machine{Labels: []string{"ubuntu-latest"}}, billing.Machine{Labels: []string{"macos-latest"}}
	b.Add(linux, 61*time.Second)
	b.Add(mac, 30*time.Second)
	b.Add(linux, time.Second)
	b.Add(billing.Machine{Own: true}, time.Hour)
	want := billing.Bill{
		Lines: []billing.Line{
			{Runner: "Linux", Jobs: 2, Minutes: 3, Factor: 1, Billed: 3},
			{Runner: "macOS", Jobs: 1, Minutes: 1, Factor: 10, Billed: 10},
			{Runner: "self-hosted", Jobs: 1, Minutes: 60},
		},
		Billed: 13,
	}
	if diff := cmp.Diff(want, b); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
