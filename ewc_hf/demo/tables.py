"""The tables from which the demo's text is made: who lives where, what happens, and what people chat about.

How to read them: a stanza is a line and the indented lines below it. The first line is always told; of the others some
are, in their order. A slot `{day}` draws a word of that name and keeps it throughout the text; `{day2}` draws another
one. `{a}`, `{b}` and `{c}` are a chapter's hero, the hero's relative and a third person from elsewhere.
"""

PLACES = """
name | river | hill | weather | produce | landmark
Ashford | the Wend | Crow Hill | fog | apples | the stone bridge
Thornby | the Marl | Gallows Down | east wind | barley | the leaning tower
Saltmere | the Ebble | Gull Head | sea mist | herring | the white lighthouse
Oakhollow | the Tarn | Badger Rise | drizzle | mushrooms | the hollow oak
Harrowgate | the Swift | Iron Crag | hail | slate | the abandoned quarry
Penwick | the Lark | Shepherd Knoll | north gale | wool | the ruined abbey
Dunmoor | the Burn | Raven Tor | frost | turf | the standing stones
Larkfield | the Merry | Windmill Mound | haze | wheat | the round barn
Vinehurst | the Amber | Sunny Bank | thunder | grapes | the empty palace
Coldwater | the Glass | Frozen Peak | snow | trout | the wooden chapel
Brackenridge | the Fern | Deer Leap | sleet | venison | the hunting lodge
Honeycombe | the Dapple | Clover Brow | heavy dew | honey | the walled garden
Kilnsey | the Ochre | Clay Cliff | dust | pottery | the smoking kiln
Wolfstone | the Thread | Hunger Pass | black ice | furs | the frontier gate
"""
WOMEN = """Agnes Alma Beatrix Bridget Cecily Clara Dinah Dora Edith Elspeth Esther Fanny Flora Gerda Greta Hester Hilda
Ida Ingrid Isolde Jessamy Judith Katrin Lavinia Lettice Mabel Marta Minna Nell Oda Olive Petra Prudence Rhoda Rosamund
Sabine Tabitha Thea Ursula Winifred"""
MEN = """Abel Alaric Ambrose Barnaby Bertram Caleb Conrad Cuthbert Dunstan Edmund Elias Felix Gideon Godfrey Gregor
Harald Hugo Isaac Jasper Jonas Kaspar Lambert Leopold Magnus Matthias Ned Nicholas Osric Otto Percival Piers Quentin
Rafe Roland Silas Simon Tobias Ulric Victor Walter"""
TRADES = """baker:oven barber:razor beekeeper:hive blacksmith:anvil bookbinder:press brewer:barrel carpenter:plane
clockmaker:pendulum cobbler:hammer cooper:adze dyer:vat ferryman:oar fiddler:bow fisher:net gardener:spade
innkeeper:jug mason:chisel miller:grindstone potter:wheel saddler:needle scribe:quill shepherd:crook tailor:shears
tanner:knife thatcher:ladder tinker:bellows weaver:loom woodcutter:axe wheelwright:mallet
falconer:glove vintner:cask ropemaker:spindle"""
MATERIALS = "copper silver oaken ivory brass velvet pewter crystal leather walnut bone golden painted porcelain gilded"
OBJECTS = "kettle compass flute box comb mirror lantern thimble bell goblet locket whistle spoon clock buckle bracelet"
TEMPERS = "patient proud cheerful stubborn gentle suspicious generous timid bold solemn restless merry careful vain"
PRONOUNS = ("she", "her", "her"), ("he", "him", "his")
BONDS = "sister/brother/sister/brother cousin/cousin/cousin/cousin aunt/uncle/niece/nephew mother/father/daughter/son"
"""A bond: what the elder is to the younger, as a woman or a man, and what the younger is to the elder."""
BOOK_WORDS = """
season: spring, summer, autumn, winter; hour: noon, dusk, sunset, nightfall, midnight, sunrise, daybreak, curfew
number: three, four, five, six, seven, nine, ten, twelve, twenty; colour: red, blue, green, purple, white, scarlet
beast: mare, mule, pony, donkey, gelding, colt; bird: heron, raven, curlew, jackdaw, magpie, swallow, lapwing, cuckoo
tree: beech, willow, chestnut, pine, hawthorn, birch; manner: quietly, warmly, nervously, hastily, politely, earnestly
food: bread and cheese, cabbage soup, smoked eel, cold mutton, plum cake, onion pie, roast goose, rye porridge
trouble: the well ran dry, the harvest failed, wolves attacked the flock, plague crept from house to house,
the tax was doubled, the church bell cracked, soldiers burned the granary, moths devoured the grain, a comet appeared
quarrel: a broken fence, the price of a cow, an unpaid debt, a careless word, a stray dog, an ancient feud
illness: a burning fever, a hollow cough, a swollen knee, a pain behind the eyes, a strange trembling, a septic wound
ballad: a drowned sailor, a faithless queen, a clever fox, a lost ring, a stolen bride, two foolish giants, a pale king
when: the next morning, a few days later, before the week was out, when the roads were dry, not long afterwards,
on market day, on the eve of the fair, toward the end of the month, while the moon was still young
"""
OPENINGS = """
{a} the {a.trade} had lived in {a.home}, beside {a.home.river}, since the day {a.he} was born.
  Each {season} the {a.home.weather} came down from {a.home.hill} and lay upon the roofs until {hour}.
  The neighbours called {a.him} {a.temper}, and they were seldom wrong about such things.
  Above {a.his} hearth stood the {a.treasure}, which nobody else was allowed to touch.
  {a.his} {a.kinship} {b} was the {b.trade} of {b.home}, {number} miles beyond the {tree} woods.
  Life there had been peaceful, thanks to the trade in {a.home.produce}, until {trouble}.
{a} the {a.trade} could not remember a harder {season} in {a.home} than the one in which {trouble}.
  Every morning {a.he} rose before dawn, took up the {a.tool}, and worked while daylight lasted.
  From the window {a.he} could see {a.home.river}, {a.home.hill}, and carts heaped high with {a.home.produce}.
  Only {a.his} {a.kinship} {b}, who kept the {b.treasure} in {b.home}, might have understood what {a} feared.
  Pilgrims who came to admire {a.home.landmark} found the inn locked and the {a.home.weather} over everything.
  "We shall live on {food} if we must," said the {a.temper} {a.trade}, and almost meant it.
"""
SCENES = """
{when}, a letter came from {b}, {a.his} {a.kinship}, who still worked as the {b.trade} in {b.home}.
  "Come before the first {bird} returns, and bring the {a.treasure}," {b} had written in {colour} ink.
  The paper smelled of {b.home.produce}, and {a} hid it in {a.his} sleeve as if it were a crime.
  Although {a} was known to be {a.temper}, {a.his} hands shook like leaves.
  {a} asked {c} the {c.trade} what the riddle could mean, but {c} merely shrugged.
  An answer of {number} lines, sealed with {colour2} wax, went back across {b.home.river} at {hour}.
{when2}, {a} saddled the {beast} and took the long road from {a.home} to {b.home}.
  The {b.home.weather} met {a.him} below {b.home.hill}, so that {a.he} could hardly see the path.
  At the ford of {b.home.river} a {bird} cried {number} times, which {a} took for a warning.
  {a} had wrapped the {a.treasure} in a blanket and carried it beneath {a.his} cloak.
  {a} shared {food} with {c}, a {c.temper} {c.trade}, who was walking home to {c.home}.
  When {b.home.landmark} rose out of the fields at last, {b} was waiting there and wept with relief.
{when3}, {a} and {c} quarrelled fiercely about {quarrel}.
  "The {c.trade} of {c.home} should know better," said {a}, and struck the table with {a.his} fist.
  {c} replied that no {a.trade} in {a.home} had ever told the truth about the price of {a.home.produce}.
  {c} was {c.temper}, {a} was no better, and neither of them would give way.
  Even the {beast} in the yard grew frightened and kicked at its stall while they shouted.
  {c} snatched up the {c.treasure} and stormed out into the {a.home.weather}, and {b} could not make peace.
{when4}, there was more work than one {a.trade} could do.
  {a} bent over the {a.tool} until {hour}, and {a.his} back ached like a rotten plank.
  A merchant from {c.home} had ordered {number} pieces and offered a sack of {c.home.produce} for each.
  {c} the {c.trade} lent a hand, having left {c.his} own {c.tool} to rust at home.
  While they laboured, they hummed the ballad of {ballad}, and the sparrows beneath the rafters joined in.
  When everything was finished, the {a.temper} {a.trade} slept soundly on the bare floor.
{when5}, {a} fell ill with {illness} and could not leave {a.his} bed.
  {b} hurried over from {b.home} with herbs, candles and a pot of {food}.
  All night {a.his} {a.kinship} {b} knelt beside the pillow, turning the {b.treasure} in {b.his} fingers and praying.
  In a feverish dream {a} wandered along {a.home.river} and could not find {a.home.landmark}.
  The surgeon shook his head, opened a vein, and blamed the {a.home.weather}.
  Toward {hour} the danger passed. "A {b.temper} {b.trade} is worth {number} physicians," whispered {a}.
{when6}, the {a.treasure} vanished from the house of {a}, who searched cellar, attic and stable in vain.
  Suspicion fell upon {c} the {c.trade}, only because {c.he} came from {c.home}.
  "I own the {c.treasure}, so what would I want with another?" asked {c} the {c.trade}.
  {c.kin}, the {c.kinship} of {c}, swore {manner} upon the scripture that the {c.trade} was no thief.
  In the end it was discovered beneath a {tree}, wet with the {a.home.weather} but unharmed.
  The {a.temper} {a.trade} begged pardon of {c} in front of the whole assembly.
{when7}, a dreadful storm broke over {a.home}, and {a.home.river} rose above its banks.
  {a} ran through the {a.home.weather} to warn the families below {a.home.hill}.
  {c} the {c.trade} followed with the {beast}, {number} coils of rope and a flaming torch.
  The rescuers saved the children first, next the sheep, and finally the {a.home.produce}.
  A wave swallowed the bakery, yet {a} had the {a.treasure} safe inside {a.his} shirt.
  By {hour} nothing stood upright except {a.home.landmark}, and widows mourned in the mud.
{when8}, the whole village gathered near {a.home.landmark} for a wedding.
  The bride wore {colour} silk, and the groom had borrowed his boots from {a} the {a.trade}.
  {b} had travelled from {b.home} with {b.home.produce} for the feast and the {b.treasure} for luck.
  {c}, who was {c.temper} when sober, danced {manner} with every maiden from {c.home}.
  Fiddles and drums echoed through the churchyard until the stars faded.
  Beneath the {tree} {a} wrestled with tender memories of a sweetheart who had married {c} the {c.trade}.
"""
CLOSINGS = """
When the {season} was over, {a} took up the {a.tool} again, for {a.he} was still the {a.trade} of {a.home}.
  {b} went home to {b.home}, where {b.home.river} glittered behind {b.home.landmark}.
  {c} was seen no more that year, although some claimed that the {c.trade} had returned to {c.home}.
  The {a.treasure} hung in its old place and shone faintly in the evening sun.
  The {a.home.weather} covered {a.home.hill}, and the world grew quiet.
  Everyone agreed that so {a.temper} a neighbour deserved a little happiness.
"""

CHAT_WORDS = """
day: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday; time: 6:15, 7:00, 7:30, 8:00, 8:45, 9:20
date: March 3rd, April 12th, May 21st, June 8th, July 30th, August 15th; price: $9, $14, $25, $38, $60, $120
count: two, three, four, five, six; size: small, medium, large; sky: sunny, cloudy, rainy, windy, foggy, snowy
dish: mushroom pizza, chicken curry, onion soup, trout taco, veggie burger, honey yogurt, apple pie, caesar salad
drink: coke, lemonade, iced tea, apple juice; city: Lisbon, Chicago, Oslo, Toronto, Berlin, Seoul, Madrid, Denver
film: Night Ferry, Robot Summer, The Last Letter, Paper Wolves, Golden Hour; actor: Maya Cole, Lena Ortiz, Ravi Menon
team: Rovers, Comets, Ravens, Miners, Giants; score: 2-1, 3-0, 1-0, 4-2; app: email, photo, calendar, map, banking
device: laptop, phone, tablet, printer, router; hobby: guitar, yoga, chess, pottery, hiking, baking
yes: Sure, Of course, No problem, Absolutely, You bet, Yep; hello: Hi, Hey, Hello, Hey there, Good morning
"""
DIALOGS = """
{hello}! I'd like to order some food, please. | {yes}! What can I get for you today?
  Can I have the {dish}? | Good choice! Is that a {size} or a {size2}?
  What's there to drink? | We've got {drink}, {drink2} and coffee.
  Is the {dish2} spicy? | Just a little. I can ask the kitchen to make it mild.
  How much is it all together? | That's {price} with delivery. Cash or card?
  Can you bring it to my place by {time}? | {yes}, the driver's on his way soon.
{hello}, can you book me a flight to {city}? | {yes}! When do you want to leave?
  I'm leaving on {date} and staying {count} days. | Got it. There's one at {time} for {price}.
  Is there a train instead? | Yeah, the train from {city2} takes {count2} hours.
  Can I get a window seat? | {yes}, I've put you in row {count3} by the window.
  I also need a hotel near the river. | The River Inn has a double room for {price2} a night.
  What's {city} like at that time of year? | It's usually {sky}, so don't forget a jacket.
{hello}, are there any good movies on this week? | You should see {film}. Everybody's talking about it!
  Who's in it? | {actor} plays a spy and {actor2} plays the boss.
  Is it better than {film2}? | I think so. {film2} was way too long.
  Can I get {count} tickets for {day}? | {yes}! There's a show at {time} and one at {time2}.
  Are kids allowed? | It's fine for kids over ten, but it's kinda scary.
  How much are the tickets? | They're {price} each, and popcorn's on us if you buy {drink}.
Did you watch the game on {day}? | Yeah! The {team} beat the {team2}, {score}. What a match!
  Who scored? | The new striker did, right before half time.
  Are the {team2} out of the cup? | Not yet. They still play the {team3} on {date}.
  Is the coach leaving? | That's the rumor, but nobody knows for sure.
  Can we get seats for the next one? | {yes}, they're {price} online. Want me to grab {count}?
  Who do you think will win the league? | I'd bet on the {team3}. They've got the best defense.
{hello}, my {device} isn't working. | Oh no, I'm sorry! What seems to be the problem?
  The screen's just black. | Hold the power button for {count} seconds and let go.
  It keeps losing the wifi. | Try switching airplane mode off and on again.
  I can't open the {app} app. | Please update it first, then log in with your password.
  The battery dies so fast. | Close the {app2} app. It's eating all your power.
  Should I bring it to the store? | {yes}, come by on {day} around {time}. We'll take a look.
{hello}! How's it going? | I'm doing great, thanks! How about you?
  Not bad, I'm just tired. | Same here. Did you work late on {day}?
  I've started {hobby}. It's fun! | That's awesome! I've always wanted to try {hobby}.
  Do you have plans for the weekend? | I'm going to {city} with my sister. It'll be {sky} there!
  How's {name} doing? | Oh, {name}'s fine! New job, new house, same old jokes.
  Wanna grab a coffee at {time}? | I'd love to! Let's meet by the bridge.
"""
FAREWELLS = """
Great, thanks a lot! | You're welcome! Have a nice day!
Perfect, that's all for now. | Awesome! Talk to you soon.
Okay, I'll think about it. | {yes}, take your time. I'm here if you need me.
Cool, see you on {day}! | See you then! Bye!
"""
