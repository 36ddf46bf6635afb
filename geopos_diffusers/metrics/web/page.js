// The sections in order.

const nav = el("nav", { "aria-label": "sections" });
headline();
page.append(nav);
modelsSection();
differencesSection();
promptsSection();
sideBySideSection();
gallerySection();
imagesSection();
aboutSection();
nav.append(...[...page.querySelectorAll("section")].map((one) => el("a", { href: `#${one.id}` }, one.querySelector("h2").textContent)));
