package huaweicloud

import (
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// "System busy": the documents ask to try again after about five minutes.
const wafBusy = 5 * time.Minute

// wafCodes are the error codes of WAF (reference 6.2: tables of Huawei Cloud and
// of Open Telekom Cloud, dedicated and old cloud mode).
var wafCodes = codeTable{
	// The request is wrong: general, URL, body, id, name, host, paging, header.
	"WAF.00011001": {kind: providers.KindInvalid},
	"WAF.00011002": {kind: providers.KindInvalid},
	"WAF.00011003": {kind: providers.KindInvalid},
	"WAF.00011004": {kind: providers.KindInvalid},
	"WAF.00011005": {kind: providers.KindInvalid},
	"WAF.00011006": {kind: providers.KindInvalid},
	"WAF.00011007": {kind: providers.KindInvalid},
	"WAF.00011008": {kind: providers.KindInvalid},
	"WAF.00011009": {kind: providers.KindInvalid},
	"WAF.00011010": {kind: providers.KindInvalid},
	"WAF.00011011": {kind: providers.KindInvalid},
	"WAF.00011012": {kind: providers.KindInvalid},
	"WAF.00011013": {kind: providers.KindInvalid},
	"WAF.00011014": {kind: providers.KindInvalid},
	"WAF.00011016": {kind: providers.KindExists},  // name duplicate
	"WAF.00011019": {kind: providers.KindInvalid}, // certificate illegal
	"WAF.00011021": {kind: providers.KindInvalid}, // certificate expired

	// Who asks, and for what. All of these come with status 400.
	"WAF.00012001": {kind: providers.KindUnauthenticated}, // token invalid
	"WAF.00012002": {kind: providers.KindInvalid},         // project id does not fit the token
	"WAF.00012003": {kind: providers.KindDenied},
	"WAF.00012004": {kind: providers.KindDenied}, // account frozen
	"WAF.00012005": {kind: providers.KindDenied}, // WAF not subscribed
	"WAF.00012006": {kind: providers.KindDenied},
	"WAF.00012009": {kind: providers.KindDenied},
	"WAF.00012010": {kind: providers.KindInvalid}, // all_granted_eps in a write

	"WAF.00013001": {kind: providers.KindQuota},
	"WAF.00013002": {kind: providers.KindInvalid}, // feature not supported
	"WAF.00013007": {kind: providers.KindQuota},

	"WAF.00014001": {kind: providers.KindNotFound}, // with status 400
	"WAF.00014002": {kind: providers.KindExists},
	"WAF.00014007": {kind: providers.KindInvalid}, // host conflict
	"WAF.00014008": {kind: providers.KindInvalid}, // same domain with another certificate
	"WAF.00014009": {kind: providers.KindInvalid}, // API not found
	"WAF.00014012": {kind: providers.KindQuota},

	"WAF.00021002": {kind: providers.KindInvalid},
	"WAF.00021003": {kind: providers.KindInvalid},
	"WAF.00021004": {kind: providers.KindInvalid},
	"WAF.00021005": {kind: providers.KindInvalid}, // name longer than 64
	"WAF.00021006": {kind: providers.KindInvalid},
	"WAF.00021013": {kind: providers.KindInvalid}, // certificate expired or illegal

	"WAF.00022001": {kind: providers.KindNotFound},
	"WAF.00022002": {kind: providers.KindExists},
	"WAF.00022003": {kind: providers.KindInUse},
	"WAF.00022004": {kind: providers.KindInvalid}, // rule conflict
	"WAF.00022005": {kind: providers.KindQuota},   // insufficient resources

	// The service itself.
	"WAF.00010001": {server: true},
	"WAF.00020001": {server: true},
	"WAF.00010002": {kind: providers.KindUnavailable, wait: wafBusy},
	"WAF.00020002": {kind: providers.KindUnavailable, wait: wafBusy},

	// Old cloud mode of Open Telekom Cloud.
	"WAF.1003": {kind: providers.KindInvalid}, // id
	"WAF.1004": {kind: providers.KindInvalid}, // name
	"WAF.1605": {kind: providers.KindInvalid}, // certificate format
	"WAF.1606": {kind: providers.KindInvalid}, // key format
	"WAF.3001": {kind: providers.KindNotFound},
	"WAF.3002": {kind: providers.KindQuota},
	"WAF.3003": {kind: providers.KindInUse},
	"WAF.3004": {kind: providers.KindUnavailable, wait: wafBusy},
	"WAF.9001": {kind: providers.KindUnauthenticated}, // IAM failed
	"WAF.9002": {kind: providers.KindDenied},
}
