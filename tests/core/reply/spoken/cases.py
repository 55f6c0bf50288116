"""Table of written texts and what a voice should say for them, by language and kind.

A star before the written text marks the cases that are also synthesized and transcribed. They were chosen by kind
before their transcripts were known: numbers, money, times, dates, addresses, abbreviations, markup and signs.
"""

from __future__ import annotations

ENGLISH = """
# numbers
* I have 3 apples and 42 pears. | I have three apples and forty-two pears.
* The answer is 1,234. | The answer is one thousand two hundred thirty-four.
It has 1000000 parts. | It has one million parts.
* Pi is about 3.14. | Pi is about three point one four.
It weighs .5 or 0.05 grams. | It weighs zero point five or zero point zero five grams.
* It is -5 degrees outside. | It is minus five degrees outside.
It fell by −3.5 points. | It fell by minus three point five points.
She came 1st, he came 22nd. | She came first, he came twenty-second.
* This is the 3rd time. | This is the third time.
* About 5 million people live there. | About five million people live there.
There are 2.5 billion users. | There are two point five billion users.
Agent 007 called. | Agent zero zero seven called.
Take ~5 minutes. | Take about five minutes.
More than 100+ stores. | More than one hundred plus stores.
It is 10x better. | It is ten times better.
A 5-year-old and a 3-month plan. | A five year old and a three month plan.
The 1990s and the '80s were fun. | The nineteen nineties and the eighties were fun.
I have 10k followers. | I have ten thousand followers.
# ranges
* It takes 3-5 days. | It takes three to five days.
Pages 10–12 explain it. | Pages ten to twelve explain it.
* He lived from 1914-1918 in Paris. | He lived from nineteen fourteen to nineteen eighteen in Paris.
The 2019-20 season. | The twenty nineteen to twenty season.
It costs $5-10. | It costs five to ten dollars.
It costs $5-$10 each. | It costs five to ten dollars each.
Choose 3 - 5 items. | Choose three to five items.
# money
* It costs $5. | It costs five dollars.
* That will be $12.50. | That will be twelve dollars and fifty cents.
A pen is $0.99. | A pen is ninety-nine cents.
It is $1 or $1.01. | It is one dollar or one dollar and one cent.
* You owe me -$20. | You owe me minus twenty dollars.
They paid $500. | They paid five hundred dollars.
* The house costs $1.2 million. | The house costs one point two million dollars.
It raised $5M and $3bn. | It raised five million dollars and three billion dollars.
It is €20 or £15 or ¥300. | It is twenty euros or fifteen pounds or three hundred yen.
It is 20€ or 20 EUR. | It is twenty euros or twenty euros.
It costs $9.99/month. | It costs nine dollars and ninety-nine cents per month.
I gave ($40) back. | I gave forty dollars back.
It is $1,299.00 now. | It is one thousand two hundred ninety-nine dollars now.
# percent and units
* Sales rose by 12.5%. | Sales rose by twelve point five percent.
It is 5 % off. | It is five percent off.
* It is 25°C today. | It is twenty-five degrees Celsius today.
It is 77 °F now. | It is seventy-seven degrees Fahrenheit now.
* It is 5 km away. | It is five kilometers away.
I walked 1 mi or 1.6km. | I walked one mile or one point six kilometers.
She weighs 60 kg. | She weighs sixty kilograms.
* The limit is 65 mph. | The limit is sixty-five miles per hour.
It drives 100 km/h. | It drives one hundred kilometers per hour.
The disk has 512GB. | The disk has five hundred twelve gigabytes.
The flat has 80 m² of space. | The flat has eighty square meters of space.
He is 6'2" tall. | He is six foot two tall.
The box is 20x30 cm. | The box is twenty by thirty centimeters.
The screen has 1920x1080 pixels. | The screen has nineteen twenty by ten eighty pixels.
I will be 5 minutes late. | I will be five minutes late.
# years
* It happened in 1984. | It happened in nineteen eighty-four.
* In 2024 it opened. | In twenty twenty-four it opened.
It was built in 1805. | It was built in eighteen oh-five.
We moved in 2005. | We moved in two thousand five.
The walk was 1500 steps. | The walk was one thousand five hundred steps.
He died in 44 BC. | He died in forty-four B-C.
# dates
* The meeting is on January 5, 2024. | The meeting is on January fifth, twenty twenty-four.
* It is due on Dec. 25. | It is due on December twenty-fifth.
We met on 5 May 2023. | We met on the fifth of May twenty twenty-three.
The 4th of July is a holiday. | The fourth of July is a holiday.
The date is 2024-01-05. | The date is January fifth, twenty twenty-four.
* It expires on 3/15/2025. | It expires on March fifteenth, twenty twenty-five.
It is on Mon. and Tues. | It is on Monday and Tuesday.
# times
* The train leaves at 3:30 p.m. | The train leaves at three thirty PM.
* We open at 9:05 a.m. and close late. | We open at nine oh five AM and close late.
It is 12:00 now. | It is twelve o'clock now.
* The bus comes at 7:00. | The bus comes at seven o'clock.
Come at 5 p.m. The door is open. | Come at five PM. The door is open.
Call at 3pm or 15:45. | Call at three PM or fifteen forty-five.
* We are open 9am-5pm. | We are open nine AM to five PM.
From 9:00-17:30 daily. | From nine o'clock to seventeen thirty daily.
It is 5 PM EST. | It is five PM EST.
# telephone numbers and codes
* Call 555-012-3456 now. | Call five five five, zero one two, three four five six now.
* My number is (415) 555-0123. | My number is four one five, five five five, zero one two three.
Dial +1 415 555 0123. | Dial plus one, four one five, five five five, zero one two three.
Text 4155550123 please. | Text four one five, five five five, zero one two three please.
Or 1-800-555-1234. | Or one, eight zero zero, five five five, one two three four.
It is 555 0123. | It is five five five, zero one two three.
* Please dial 911. | Please dial nine one one.
Call 988 for help. | Call nine eight eight for help.
* The zip code is 90210. | The zip code is nine zero two one zero.
Los Angeles, CA 90210. | Los Angeles, California nine zero two one zero.
Send it to 10001-1234. | Send it to one zero zero zero one, one two three four.
The card is 4111 1111 1111 1111. | The card is four one one one, one one one one, one one one one, one one one one.
Your code is 482913. | Your code is four eight two nine one three.
Your PIN is 1234. | Your PIN is one two three four.
* Take flight UA1234. | Take flight U-A one two three four.
GPT-4 and COVID-19 and MP3. | G-P-T four and COVID nineteen and M-P three.
Use Python 3.11.2. | Use Python three point eleven point two.
The host is 192.168.0.1. | The host is one nine two dot one six eight dot zero dot one.
You are #1. | You are number one.
He is No. 5 here. | He is number five here.
No. That is wrong. | No. That is wrong.
# addresses
* Visit https://www.example.com for more. | Visit example dot com for more.
Go to example.org/help. | Go to example dot org slash help.
See http://my-site.io/a/b?x=1. | See my dash site dot I-O slash a slash b.
See https://example.com/0123456789/0123456789/0123456789/abc. | See example dot com.
* Write to joe.doe@example.com. | Write to joe dot doe at example dot com.
Mail a_b99@mail.co.uk now. | Mail a underscore b ninety-nine at mail dot co dot U-K now.
Open report.pdf or main.py. | Open report dot P-D-F or main dot P-Y.
Look in /usr/local/bin. | Look in slash usr slash local slash bin.
Ask @joe about #voice. | Ask at joe about hashtag voice.
* Click [the docs](https://example.com/a_b) now. | Click the docs now.
Click [here](https://example.com "My title") now. | Click here now.
Write to <joe@example.com>. | Write to joe at example dot com.
# abbreviations
* Dr. Smith called Mr. Lee. | Doctor Smith called Mister Lee.
* Mrs. Jones lives at 12 Main St. in St. Louis. | Missus Jones lives at twelve Main Street in Saint Louis.
He lives at 12 Elm St. The house is red. | He lives at twelve Elm Street. The house is red.
* Martin Luther King Jr. spoke. | Martin Luther King Junior spoke.
Bring fruit, e.g. apples, i.e. food. | Bring fruit, for example apples, that is food.
Cats, dogs, etc. are pets. | Cats, dogs, et cetera. are pets.
It is the U.S. Army. | It is the U-S Army.
J. R. R. Tolkien wrote it. | J R R Tolkien wrote it.
She has a Ph.D. in law. | She has a P-H-D in law.
Acme Inc. vs. Foo Ltd. met. | Acme Incorporated versus Foo Limited met.
Tea w/o milk, w/ sugar. | Tea without milk, with sugar.
AT&T has a Q&A page. | A-T and T has a Q and A page.
Salt & pepper. | Salt and pepper.
Prof. Lee left approx. 5 notes. | Professor Lee left approximately five notes.
* World War II ended. | World War two ended.
* Henry VIII had six wives. | Henry the eighth had six wives.
Read chapter IV and Louis XIV's life. | Read chapter four and Louis the fourteenth's life.
Super Bowl XX and Elizabeth I ruled. | Super Bowl twenty and Elizabeth the first ruled.
James and I went. | James and I went.
Bring cats and/or dogs. | Bring cats and or dogs.
# arithmetic
* 5 - 3 = 2. | five minus three equals two.
* 5 x 3 is 15. | five times three is fifteen.
3 × 4 and 8 ÷ 2. | three times four and eight divided by two.
10 / 2 = 5. | ten divided by two equals five.
2+2=4 and 2*3=6. | two plus two equals four and two times three equals six.
If x < 5 then y > 3. | If x less than five then y greater than three.
It is ≤ 5 and ≥ 2. | It is less than or equal to five and greater than or equal to two.
E=mc² is famous. | E equals m c squared is famous.
* Add 1/2 cup of milk. | Add one half cup of milk.
Use 3/4 or ½ or 2½ cups. | Use three quarters or one half or two and one half cups.
Use 2 1/2 cups. | Use two and one half cups.
I give it 8/10. | I give it eight out of ten.
We are open 24/7. | We are open twenty-four seven.
So $x^2 + y^2 = z^2$ holds. | So x squared plus y squared equals z squared holds.
It is \\(a \\leq b\\). | It is a less than or equal to b.
We get $\\frac{1}{2}$ here. | We get one over two here.
The root is $\\sqrt{2} \\times 3$. | The root is the square root of two times three.
An angle of π or α. | An angle of pi or alpha.
# markup
* I am **really** *very* happy. | I am really very happy.
# Title\\n\\nText here. | Title Text here.
- one\\n- two | one two
1. Eat\\n2. Sleep | one Eat two Sleep
> A quote | A quote
* Use ~~old~~ `new` words. | Use old new words.
| Name | Age |\\n|---|---|\\n| Ann | 5 | | Name, Age, Ann, five,
Run this:\\n```python\\nprint(1)\\n```\\nDone. | Run this: I will not read the code aloud. Done.
This is <b>bold</b> and <br/> new. | This is bold and new.
See <a href="https://x.com" class="y">this link</a>. | See this link.
* Fish &amp; chips are &lt; $5. | Fish and chips are less than five dollars.
It is 5&nbsp;km. | It is five kilometers.
A fact.[1] And more[^2] text. | A fact. And more text.
[^1]: The source. | The source.
Done ☑ --- ok | Done okay
A \\*star\\* sign. | A star sign.
![A cat](https://x.com/cat.png) sits. | A cat sits.
# signs
* Great job! 😀🎉 Keep going. | Great job! Keep going.
I like it :) a lot <3 | I like it a lot
* *sighs* Well, okay. (laughs) Fine. | Well, okay. Fine.
*clears throat* Hello. [pause] Go. | Hello. Go.
*Really* means (truly) yes. | Really means truly yes.
Wait... what? | Wait, what?
Yes—no – maybe. | Yes, no, maybe.
He said “hi” and ‘bye’. | He said hi and bye.
Turn A → B. | Turn A to B.
你好世界 means hello, 再见 bye. | some Chinese text that I cannot read aloud means hello, bye.
Привет means hi. | some Cyrillic text that I cannot read aloud means hi.
"""

GERMAN = """
Das kostet 3,50 €. | Das kostet drei Euro und fünfzig Cent.
Es sind 1.234 Leute. | Es sind eintausendzweihundertvierunddreißig Leute.
Es ist 15:30 Uhr. | Es ist fünfzehn Uhr dreißig.
Am 3. Mai um 8 Uhr. | Am dritten Mai um acht Uhr.
Pi ist 3,14. | Pi ist drei Komma eins vier.
Das sind 5 km oder 20 %. | Das sind fünf Kilometer oder zwanzig Prozent.
Dr. Weber kommt z.B. morgen. | Doktor Weber kommt zum Beispiel morgen.
Es sind -5 °C. | Es sind minus fünf Grad Celsius.
Rufen Sie 030 123 4567 an. | Rufen Sie null drei null, eins zwei drei, vier fünf sechs sieben an.
"""

SPANISH = """
Cuesta 3,50 €. | Cuesta tres euros y cincuenta céntimos.
Hay 1.234 personas. | Hay mil doscientos treinta y cuatro personas.
Son las 15:30. | Son las quince y treinta.
El Sr. García vive a 5 km. | El señor García vive a cinco kilómetros.
Sube un 20 %. | Sube un veinte por ciento.
El 5 de mayo. | El cinco de mayo.
"""

FRENCH = """
Cela coûte 3,50 €. | Cela coûte trois euros et cinquante centimes.
Il est 15h30. | Il est quinze heures trente.
Le 1er mai, 5 km plus loin. | Le premier mai, cinq kilomètres plus loin.
Il fait -5 °C. | Il fait moins cinq degrés Celsius.
C'est 20 % de 80. | C'est vingt pour cent de quatre-vingts.
"""


def cases(table: str) -> list[tuple[str, str, bool]]:
    """Return the cases of a table: the written text, the spoken text, and whether the case is synthesized."""
    found: list[tuple[str, str, bool]] = []
    for line in table.strip().splitlines():
        written, bar, spoken = line.rpartition(" | ")
        if not bar:
            continue
        starred = written.startswith("* ")
        found.append((written.removeprefix("* ").replace("\\n", "\n"), spoken, starred))
    return found
