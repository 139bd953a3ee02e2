package policy

import "slices"

// Clouds are the names of the clouds that a policy uses, sorted.
func (p *Policy) Clouds() []string {
	var clouds []string
	if p.Source.PrivateCA != nil {
		clouds = append(clouds, p.Source.PrivateCA.Cloud)
	}
	if p.Source.IdentityCenter != nil {
		clouds = append(clouds, p.Source.IdentityCenter.Cloud)
	}
	for _, t := range p.Targets {
		if t.WAF != nil {
			clouds = append(clouds, t.WAF.Cloud)
		}
		if t.APIG != nil {
			clouds = append(clouds, t.APIG.Cloud)
		}
	}
	slices.Sort(clouds)
	return slices.Compact(clouds)
}

// CloudOf is the name of the cloud that a target is in, empty where it is in none. The empty
// target is the source.
func (p *Policy) CloudOf(target string) string {
	if target == "" {
		switch {
		case p.Source.PrivateCA != nil:
			return p.Source.PrivateCA.Cloud
		case p.Source.IdentityCenter != nil:
			return p.Source.IdentityCenter.Cloud
		}
		return ""
	}
	for _, t := range p.Targets {
		switch {
		case t.Name != target:
		case t.WAF != nil:
			return t.WAF.Cloud
		case t.APIG != nil:
			return t.APIG.Cloud
		case t.Application != nil:
			return p.CloudOf("")
		}
	}
	return ""
}
